module dockeraudit.invalid/reference

go 1.19
