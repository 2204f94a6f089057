"""The Vault: checkpoints, retention, disk. Policy only; imports core."""
