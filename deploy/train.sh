#!/bin/sh
# Resume the run of $BACKUP on this machine, or begin it where there is no copy yet.
#   STORE=s3://BUCKET/tokyo BACKUP=s3://BUCKET/run1 [CONFIG=finetune_tokyo] sh deploy/train.sh
set -u
: "${STORE:?set STORE to the address of the data}" "${BACKUP:?set BACKUP to the address of copies}"
CONFIG=${CONFIG:-finetune_tokyo}
vlwm train --config "$CONFIG" --data "$STORE" --backup "$BACKUP" --resume
code=$?
# 4: there is no backup to resume from
[ "$code" -eq 4 ] || exit "$code"
exec vlwm train --config "$CONFIG" --data "$STORE" --backup "$BACKUP"
