"""Which server a program uses, and as whom: from arguments, ``EXPOSR_*`` and the accounts file.

What the script takes from its command line, a library call or an endpoint
string has as arguments; what is missing comes from the same variables and the
same file as the script's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from twisted.python.usage import UsageError

from exposr_tx.client.accounts_file import AccountsFile, StoredAccount, account_in
from exposr_tx.client.options import ExposrOptions
from exposr_tx.client.trust import Trust
from exposr_tx.errors import BadInput

__all__ = ["Access"]


@dataclass(frozen=True, slots=True)
class Access:
    """A server, and the account there.

    :ivar server: the API's URL.
    :ivar accounts: what remembers accounts by server.
    :ivar number: the account's number, where it was given itself. A secret.
    :ivar file: a file that holds the number, where that was given, and
        ``file_option`` what it was given by, for errors.
    :ivar trust: whom to believe that he is the server.
    :ivar keep: whether a tunnel that was made stays at the end.
    """

    server: str
    accounts: AccountsFile
    number: str = field(default="", repr=False)
    file: str = ""
    file_option: str = "account-file"
    trust: Trust = field(default_factory=Trust)
    keep: bool = False

    @classmethod
    def find(
        cls,
        environ: Mapping[str, str],
        server: str = "",
        account: str = "",
        account_file: str = "",
    ) -> Access:
        """Put together what was given and, for what was not, the environment.

        Reads no file. Raises BadInput, which names the value and the remedy.
        """
        words = ["tunnel", "connect"]
        given = {"server": server, "account": account, "account-file": account_file}
        words += [f"--{name}={value}" for name, value in given.items() if value]
        options = ExposrOptions(environ)
        try:
            options.parseOptions(words)
        except UsageError as error:
            # Arguments have the options' names, without the dashes.
            raise BadInput(str(error).removeprefix("--")) from None
        if not options["server"]:
            raise BadInput("which server? Give its URL as server, or as the variable EXPOSR_SERVER")
        # What was given itself counts more than what the environment says.
        source = "account" if "account" in options.given else "account-file"
        if account_file and not account:
            source = "account-file"
        return cls(
            server=options["server"],
            accounts=AccountsFile.of_user(environ),
            number=str(options["account"] or "").strip() if source == "account" else "",
            file=str(options["account-file"] or "") if source == "account-file" else "",
            file_option=options.given.get("account-file", "").removeprefix("--"),
            trust=Trust(options["server-ca"], not options["insecure-server"]),
            keep=bool(options.command()[1]["keep"]),
        )

    def account(self) -> StoredAccount | None:
        """The account to use; None where none is known and one may be registered.

        Raises BadInput for a file that cannot be used.
        """
        if self.number:
            return StoredAccount(self.number)
        if not self.file:
            return self.accounts.account(self.server)
        return account_in(self.file, self.file_option)
