"""The population simulator: one contract (``observe``), a dense and an event-driven back-end."""
