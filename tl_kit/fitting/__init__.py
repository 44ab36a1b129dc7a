"""The best classifier in a given time: candidate networks, the ladder of steps, the budget and the leaderboard."""
