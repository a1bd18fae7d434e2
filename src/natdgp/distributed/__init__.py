"""What a rank is, how ranks agree on one gradient, and how they see each other.

Modules are named where they are used: a rank shows its heartbeat before it has imported TensorFlow.
"""
