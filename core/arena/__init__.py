"""The arena: players train, set against each other and improve miniature GPTs by what they spend. Rules, agents, battles."""
