# Each twentieth check is taken out, of the core and of the services: the tests must notice.
make mutants MUTANTS_ARGS="--every=20 --only=services"
