"""Rules at production vocabularies, where a context is checked in O(V) and never enumerated."""
