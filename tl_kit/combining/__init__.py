"""Combining predictions, with NumPy alone: rules, selection, stacking, calibration, bootstrap, receipts."""
