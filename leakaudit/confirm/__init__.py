"""The client and the judge: share a probe's gradient, have it attacked, compare with the truth."""
