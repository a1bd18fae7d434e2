class Likelihood: pass
