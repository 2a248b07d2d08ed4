"""The causal space-time transformer over tokens."""
