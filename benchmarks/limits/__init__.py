"""What stands between MaleniaTrainer and right answers on phantoms: descriptions, masks, or reading the aspects."""
