"""The stages of an audit put together; findings suppressed, known or failing a gate."""
