"""What happened in a training? Its report: page, figures and pictures. May use ``benchmark`` and below."""
