"""Values of the chart for one run, and Helm. Contacts no cluster."""
