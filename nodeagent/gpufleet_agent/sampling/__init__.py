"""Reading every device on a schedule, and what is known of them at any instant."""
