"""What the catalogue program does on Apache Beam: plans, the pipeline and its workers."""
