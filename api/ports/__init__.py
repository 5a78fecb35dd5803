"""What the API asks of the appliance, a Protocol a resource; see ``api.desk``."""
