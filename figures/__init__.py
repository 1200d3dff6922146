"""Paper-style figures from the result store; never trains, never measures."""
