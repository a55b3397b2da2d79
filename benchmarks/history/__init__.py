"""A history checker: clients record every request and answer under random faults; then the record is checked."""
