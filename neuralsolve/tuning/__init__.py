"""Online learners: which value to take for the next solve, from what the earlier ones cost."""

from neuralsolve.tuning.adaptive_sor import AdaptiveSOR as AdaptiveSOR
from neuralsolve.tuning.bins import TsallisINFBins as TsallisINFBins
from neuralsolve.tuning.cheb_cb import ChebCB as ChebCB
from neuralsolve.tuning.fixed import Fixed as Fixed
from neuralsolve.tuning.learner import Learner as Learner
from neuralsolve.tuning.learner import Learning as Learning
from neuralsolve.tuning.learner import Observation as Observation
from neuralsolve.tuning.replay import Replay as Replay
from neuralsolve.tuning.replay import replay as replay
from neuralsolve.tuning.scalar_fit import ScalarFit as ScalarFit
from neuralsolve.tuning.thompson import Thompson as Thompson
from neuralsolve.tuning.tsallis import TsallisINF as TsallisINF
