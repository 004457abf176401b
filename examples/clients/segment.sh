#!/bin/sh
# A client of `deop serve` in curl: segments a photo, once as JSON and once as a picture.
# Usage: sh segment.sh PHOTO NAMES [ADDRESS]. With a token, set DEOP_TOKEN.
set -eu
photo=$1 names=$2 address=${3:-http://localhost:8000}

ask() {  # --retry waits as long as the header Retry-After of an answer 429 or 503 says
  curl --silent --show-error --fail-with-body --retry 5 --header "Authorization: Bearer ${DEOP_TOKEN:-}" "$@"
}

ask --form "photo=@$photo" --form "names=$names" "$address/v1/segment"
echo
ask --form "photo=@$photo" --form "names=$names" --form picture=overlay \
  --header "Accept: image/png" --output segmented.png "$address/v1/segment"
