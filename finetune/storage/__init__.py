"""Files and folders at addresses: https://, and whatever fsspec reaches (s3://, gs://) with the extra `remote`."""
