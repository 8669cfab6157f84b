import { flagOf, SETTING_KEYS, settingOf, variableOf } from './config-schema.ts';

/** The settings as a Markdown table, for docs/configuration.md. */
export function makeSettingsTable(): string {
  const rows = SETTING_KEYS.map((key) => {
    const { doc, default: initial, defaultWords, expected, unsupported, fileOnly } = settingOf(key);
    const names = fileOnly ? 'file only' : `\`${variableOf(key)}\`<br>\`--${flagOf(key)}\``;
    const start = initial === '' ? (defaultWords ?? 'none') : `\`${initial}\``;
    return [`\`${key}\``, names, start, unsupported === undefined ? expected : '', doc];
  });
  const lines = [
    ['key', 'variable, flag', 'default', 'may be', 'what it is'],
    ['---', '---', '---', '---', '---'],
    ...rows,
  ];
  return lines.map((cells) => `| ${cells.join(' | ')} |\n`).join('');
}
