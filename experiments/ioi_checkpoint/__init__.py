"""The published circuit of indirect object identification in mamba-370m, measured again."""
