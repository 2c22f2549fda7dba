"""What people read: tables, the HTML report, figures, scalars for TensorBoard."""
