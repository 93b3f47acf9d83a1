"""The published tables from MSD and KiTS23: this project's rows beside the published ones."""
