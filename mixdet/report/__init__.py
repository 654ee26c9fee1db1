"""What happened in a run? Its page, figures and pictures. May use ``benchmark`` and below."""
