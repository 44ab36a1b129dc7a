"""Optimizers, learning-rate schedules, parameter groups, penalties and class weights."""
