"""Public data sets to nnU-Net raw data with attributes; installed as nnunetv2_malenia.dataset_conversion."""
