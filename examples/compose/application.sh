#!/bin/sh
# An application for the example: takes an order a second. Each order is a row and a file, and one without the other is
# a broken order. When it is told to stop, it finishes the order that it has in hand.
set -eu
export PGHOST=database PGUSER="$POSTGRES_USER" PGPASSWORD="$POSTGRES_PASSWORD" PGDATABASE="$POSTGRES_DB"
export PGOPTIONS='--client-min-messages=warning'
trap 'told=1' TERM INT # INT is how containers of the postgres image are stopped

psql --quiet --command 'create table if not exists orders (id bigserial primary key, article text not null)'
while [ -z "${told-}" ]; do
  article=$(cat /proc/sys/kernel/random/uuid)
  id=$(psql --quiet --no-align --tuples-only --command "insert into orders (article) values ('$article') returning id")
  sleep 1 # making the invoice takes a while
  echo "invoice: order $id, article $article" >"/files/$id"
done
