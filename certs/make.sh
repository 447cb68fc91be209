#!/bin/sh
# Makes a development CA and a certificate for this machine, beside this script:
#
#   ca.pem, ca.key          the CA: clients trust ca.pem
#   relay.pem, relay.key    the relay's: tls.certificate_file and tls.private_key_file
#
# usage: certs/make.sh [NAME...]
#
# NAMEs are host names or IP addresses that go into the certificate; localhost, 127.0.0.1 and ::1
# always do. Nothing is overwritten. For development alone: the keys have no passphrase.
set -eu
umask 077
cd "$(dirname "$0")"

command -v openssl >/dev/null || { echo "make.sh: openssl is not installed" >&2; exit 1; }
for file in ca.pem ca.key relay.pem relay.key; do
    if [ -e "$file" ]; then
        echo "make.sh: certs/$file is there already; remove it first if you want a new one" >&2
        exit 1
    fi
done

names="DNS:localhost,IP:127.0.0.1,IP:::1"
for name in "$@"; do
    case $name in
        *[!A-Za-z0-9.:-]* | "") echo "make.sh: \"$name\" is neither a host name nor an IP address" >&2; exit 64 ;;
        *:*) names="$names,IP:$name" ;;
        *[!0-9.]*) names="$names,DNS:$name" ;;
        *) names="$names,IP:$name" ;;
    esac
done

# Made in a folder of its own and moved when all is done, so that a failure leaves nothing behind.
work=$(mktemp -d ./making.XXXXXX)
trap 'rm -rf "$work"' EXIT INT TERM

cat >"$work/openssl.cnf" <<CNF
[req]
distinguished_name = name
prompt = no
[name]
CN = Bulkhead development
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[relay]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = $names
CNF

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

key "$work/ca.key"
openssl req -x509 -new -sha256 -days 3650 -config "$work/openssl.cnf" -extensions ca \
    -subj "/CN=Bulkhead development CA" -key "$work/ca.key" -out "$work/ca.pem"
key "$work/relay.key"
openssl req -new -sha256 -config "$work/openssl.cnf" -subj "/CN=localhost" \
    -key "$work/relay.key" -out "$work/relay.csr"
# 397 days: clients refuse server certificates that live longer.
openssl x509 -req -sha256 -days 397 -in "$work/relay.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" \
    -set_serial "0x$(openssl rand -hex 16 | sed 's/^./4/')" \
    -extfile "$work/openssl.cnf" -extensions relay -out "$work/relay.pem" 2>/dev/null
openssl verify -CAfile "$work/ca.pem" "$work/relay.pem" >/dev/null

chmod 644 "$work/ca.pem" "$work/relay.pem"
mv "$work/ca.pem" "$work/ca.key" "$work/relay.pem" "$work/relay.key" .

cat <<DONE
Made certs/ca.pem and certs/relay.pem with their keys, for $names.
The default settings find them: certs/relay.pem and certs/relay.key.
Clients trust certs/ca.pem:
  curl --cacert certs/ca.pem --ssl-reqd smtp://localhost:587 ...
  swaks --tls --tls-ca-path certs/ca.pem --server localhost:587 ...
DONE
