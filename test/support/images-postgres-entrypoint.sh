#!/bin/sh
# Stands in for the entry point of the postgres image: its variables, its folders, PostgreSQL as process 1.
set -eu
: "${PGDATA:=/var/lib/postgresql/data}"

case ${1-postgres} in
  -*) set -- postgres "$@" ;;
  postgres) ;;
  *) exec "$@" ;;
esac

if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA"
  chmod 700 "$PGDATA"
  chown -R postgres "$PGDATA"
  exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
[ ! -s "$PGDATA/PG_VERSION" ] || exec "$@"

user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
password=${POSTGRES_PASSWORD-}
[ -z "${POSTGRES_PASSWORD_FILE-}" ] || password=$(cat "$POSTGRES_PASSWORD_FILE")
method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
if [ -z "$password" ] && [ "$method" != trust ]; then
  echo 'Error: POSTGRES_PASSWORD is not set' >&2
  exit 1
fi

printf '%s\n' "$password" >/tmp/password
initdb --username="$user" ${password:+--pwfile=/tmp/password} ${POSTGRES_INITDB_ARGS-}
rm /tmp/password
echo "host all all all $method" >>"$PGDATA/pg_hba.conf"

pg_ctl --wait --options="-c listen_addresses=''" start
if [ "$database" != postgres ]; then createdb --username="$user" "$database"; fi
for file in /docker-entrypoint-initdb.d/*; do
  case $file in
    *.sh) . "$file" ;;
    *.sql) psql --set=ON_ERROR_STOP=1 --no-password --username="$user" --dbname="$database" --file="$file" ;;
    *.sql.gz) gunzip --stdout "$file" | psql --set=ON_ERROR_STOP=1 --no-password --username="$user" --dbname="$database" ;;
  esac
done
pg_ctl --wait --mode=fast stop
exec "$@"
