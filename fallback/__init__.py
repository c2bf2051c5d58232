"""Human fallback: the review queue, its lifecycle, reviewers, callbacks. The only place that knows Redis."""
