"""What a stage is: typed recipes, the store that keeps what they build, and the builder that runs them."""
