"""What scalers are told: the load of services, served to KEDA and to the HPA controller. It writes nothing."""
