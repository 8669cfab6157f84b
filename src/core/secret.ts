/** Whole words between underscores, so that `TOKENIZER` and `SECRETARY` are none; a plural is. */
const SECRET_WORDS =
  /(?:^|_)(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|APIKEY|API_KEY|PRIVATE_KEY)S?(?:_|$)/;

/** Words that stand at the end of a longer one as well: `PGPASSWORD`, `MYSQL_PWD`, `AWSSECRET`. */
const SECRET_ENDINGS = /(?:PASSWORD|PASSPHRASE|SECRET|TOKEN|CREDENTIALS?|_PWD|_PASS)$/;

/** What is shorter is no secret, and would mask half of every line. */
const SHORTEST_SECRET = 4;

/** Whether a variable of this name holds something that nobody may see. Case does not count. */
export function looksSecret(name: string): boolean {
  const upper = name.toUpperCase();
  return SECRET_WORDS.test(upper) || SECRET_ENDINGS.test(upper);
}

/** The values that may stand in no log: of the variables that look secret, except the names of files (`…_FILE`). */
export function secretsOf(env: Readonly<Record<string, string | undefined>>): string[] {
  const values = Object.entries(env)
    .filter(([name]) => looksSecret(name) && !name.toUpperCase().endsWith('_FILE'))
    .map(([, value]) => value ?? '');
  return [...new Set(values)].filter((value) => value.length >= SHORTEST_SECRET);
}
