"""A history checker: clients note every request and answer while the lab is broken at random; then it is judged."""
