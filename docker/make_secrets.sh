#!/usr/bin/env bash
# Makes the token and passwords of compose.yaml, once, in docker/secrets, which nobody else on this machine can read.
# Containers see single files of it, whoever they run as.
set -euo pipefail

folder="${1:-$(dirname "$0")/secrets}"
if [ -e "$folder" ]; then
    echo "$folder is there already; delete it to make new ones" >&2
    exit 1
fi

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
write() { cat > "$folder/$1"; chmod 644 "$folder/$1"; }

mkdir --mode=700 "$folder"
postgres=$(random) mlflow=$(random) store=$(random)

random | write ray_token
printf '%s' "$postgres" | write postgres_password
random | write mlflow_key
printf 'postgresql+psycopg2://mlflow:%s@postgres/mlflow' "$postgres" | write mlflow_database
write mlflow_auth.ini << END
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = postgresql+psycopg2://mlflow:$postgres@postgres/mlflow_auth
admin_username = admin
admin_password = $mlflow
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
END
write mlflow_credentials << END
[mlflow]
mlflow_tracking_username = admin
mlflow_tracking_password = $mlflow
END
write s3_credentials << END
[default]
aws_access_key_id = vlp
aws_secret_access_key = $store
END
write s3_server.json << END
{"identities": [{"name": "vlp", "credentials": [{"accessKey": "vlp", "secretKey": "$store"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
END
echo "made $folder; MLflow: user admin, password $mlflow"
