/** Completion for bash 4.2 or later, without the package bash-completion: commands, options, and values that are paths or choices. */
import { type CommandPage, type OptionPage, type ValueKind, withAllBelow } from './commands.ts';

export function bashCompletion(root: CommandPage): string {
  const pages = withAllBelow(root);
  const commands = `|${pages.slice(1).map(pathOf).join('|')}|`;
  return `# Completion of ${pathOf(root)} for bash. Made from the text of --help; see scripts/manual.
_colo() {
  local cur=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD - 1]} path=${root.path[0]} i
  # bash takes the "=" of --option=value for a word.
  if [[ $cur == '=' ]]; then
    cur=
  elif [[ $before == '=' ]]; then
    before=\${COMP_WORDS[COMP_CWORD - 2]}
  fi
  local commands=${quoted(commands)}
  for ((i = 1; i < COMP_CWORD; i++)); do
    [[ $commands != *"|$path \${COMP_WORDS[i]}|"* ]] || path="$path \${COMP_WORDS[i]}"
  done
  local kind=
  case "$path $before" in
${valueCases(pages)}
  esac
  local words= options=
  if [[ -z $kind ]]; then
    case $path in
${wordCases(pages)}
    esac
    [[ $cur != -* && -n $words ]] || words=$options
  fi
  case $kind in
    file) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    folder) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
    other) COMPREPLY=() ;;
    *) mapfile -t COMPREPLY < <(compgen -W "\${kind:-$words}" -- "$cur") ;;
  esac
}
complete -F _colo ${root.path[0]}
`;
}

const pathOf = (page: CommandPage): string => page.path.join(' ');
const quoted = (words: string): string => `'${words}'`;

/** After which option which kind of value comes. */
function valueCases(pages: readonly CommandPage[]): string {
  const byKind = new Map<string, string[]>();
  for (const page of pages)
    for (const { names, value } of page.options) {
      if (value === null) continue;
      const kind = kindOf(value);
      byKind.set(kind, [
        ...(byKind.get(kind) ?? []),
        ...names.map((name) => quoted(`${pathOf(page)} ${name}`)),
      ]);
    }
  return [...byKind].map(([kind, places]) => `    ${places.join(' | ')}) kind='${kind}' ;;`).join('\n');
}

const kindOf = (value: ValueKind): string => (typeof value === 'string' ? value : value.join(' '));

function wordCases(pages: readonly CommandPage[]): string {
  return pages
    .map((page) => {
      const words = page.commands.map(({ path }) => path[path.length - 1]).join(' ');
      const options = page.options.flatMap(namesOf).join(' ');
      // Each argument that a command of colo has is the path of a file.
      const kind = page.arguments.length > 0 ? ' && [[ $cur != -* ]] && kind=file' : '';
      return `      ${quoted(pathOf(page))}) words='${words}' options='${options}'${kind} ;;`;
    })
    .join('\n');
}

/** A short name saves typing only if it is known. */
const namesOf = ({ names }: OptionPage): readonly string[] => names.filter((name) => name.startsWith('--'));
