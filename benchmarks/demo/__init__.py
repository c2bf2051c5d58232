"""The whole loop by itself, on real digits; clients, reviewers and a receiver are processes of their own."""
