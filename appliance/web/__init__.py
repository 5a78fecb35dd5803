"""The API and the console as a process of the appliance: what ``api`` asks for, answered by the appliance's own parts."""
