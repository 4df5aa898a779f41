"""Who can be reached: people, subscribers and loudspeakers, with names and addresses encrypted in one table."""
