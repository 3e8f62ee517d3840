"""Stand-in platforms on loopback: strict as their documents, able to misbehave on demand.

Knows the platforms' documents and nothing of ClickPost.
"""
