"""What guesses the next y of a prompt without having learned: references for what has."""
