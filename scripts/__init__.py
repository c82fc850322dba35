"""The command ``bws``; installed as the package ``bws_cli``."""
