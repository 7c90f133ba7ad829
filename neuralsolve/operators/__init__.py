"""What A is: data and products, no solver inside."""
