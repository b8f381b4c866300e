"""What simulated users search for: words of 40 categories in five languages."""

from __future__ import annotations

LANGUAGES = ("en", "de", "fr", "es", "ru")

QUALIFIERS = {
    "en": ("red", "cheap", "black", "small", "new"),
    "de": ("rot", "günstig", "schwarz", "klein", "neu"),
    "fr": ("rouge", "pas cher", "noir", "petit", "nouveau"),
    "es": ("rojo", "barato", "negro", "pequeño", "nuevo"),
    "ru": ("красный", "дешёвый", "чёрный", "маленький", "новый"),
}

# category: words by language, in the order of LANGUAGES; "/" divides words of one language
_ROWS = """
running-shoes: running shoes/trainers | laufschuhe/turnschuhe | chaussures de course/baskets |
  zapatillas de correr/deportivas | кроссовки/беговая обувь
boots: boots/hiking boots | stiefel/wanderschuhe | bottes/chaussures de marche |
  botas/botas de montaña | ботинки/сапоги
jackets: jacket/rain jacket | jacke/regenjacke | veste/imperméable | chaqueta/chubasquero |
  куртка/дождевик
dresses: dress/summer dress | kleid/sommerkleid | robe/robe d'été | vestido/vestido de verano |
  платье/летнее платье
jeans: jeans/denim trousers | jeans/jeanshose | jean/pantalon en jean |
  vaqueros/pantalón vaquero | джинсы/джинсовые брюки
watches: watch/wristwatch | uhr/armbanduhr | montre/montre-bracelet | reloj/reloj de pulsera |
  часы/наручные часы
jewellery: necklace/earrings | halskette/ohrringe | collier/boucles d'oreilles |
  collar/pendientes | ожерелье/серьги
handbags: handbag/purse | handtasche/geldbörse | sac à main/porte-monnaie | bolso/monedero |
  сумка/кошелёк
backpacks: backpack/rucksack | rucksack/schulranzen | sac à dos/cartable |
  mochila/mochila escolar | рюкзак/ранец
sunglasses: sunglasses/shades | sonnenbrille/brille | lunettes de soleil/lunettes |
  gafas de sol/gafas | солнечные очки/очки
phones: phone/smartphone | handy/smartphone | téléphone/smartphone | teléfono/móvil |
  телефон/смартфон
headphones: headphones/earbuds | kopfhörer/ohrhörer | casque audio/écouteurs |
  auriculares/cascos | наушники/гарнитура
laptops: laptop/notebook | laptop/notebook | ordinateur portable/portable |
  portátil/ordenador portátil | ноутбук/лэптоп
cameras: camera/lens | kamera/objektiv | appareil photo/objectif | cámara/objetivo |
  камера/фотоаппарат
televisions: television/tv screen | fernseher/bildschirm | télévision/écran | televisor/pantalla |
  телевизор/экран
games: video game/console | videospiel/konsole | jeu vidéo/console | videojuego/consola |
  видеоигра/приставка
printers: printer/ink cartridge | drucker/tintenpatrone | imprimante/cartouche |
  impresora/cartucho | принтер/картридж
speakers: speaker/soundbar | lautsprecher/soundbar | enceinte/haut-parleur |
  altavoz/barra de sonido | колонка/динамик
coffee: coffee/coffee beans | kaffee/kaffeebohnen | café/grains de café | café/café en grano |
  кофе/кофе в зёрнах
tea: tea/green tea | tee/grüner tee | thé/thé vert | té/té verde | чай/зелёный чай
chocolate: chocolate/sweets | schokolade/süßigkeiten | chocolat/bonbons | chocolate/dulces |
  шоколад/конфеты
cookware: frying pan/pot | bratpfanne/kochtopf | poêle/casserole | sartén/olla |
  сковорода/кастрюля
knives: kitchen knife/knife set | küchenmesser/messerset | couteau de cuisine/couteaux |
  cuchillo de cocina/cuchillos | кухонный нож/ножи
bedding: pillow/duvet | kissen/bettdecke | oreiller/couette | almohada/edredón | подушка/одеяло
lamps: lamp/desk lamp | lampe/schreibtischlampe | lampe/lampe de bureau | lámpara/flexo |
  лампа/настольная лампа
sofas: sofa/couch | sofa/couch | canapé/divan | sofá/diván | диван/софа
chairs: chair/office chair | stuhl/bürostuhl | chaise/fauteuil de bureau |
  silla/silla de oficina | стул/кресло
garden: garden hose/lawn mower | gartenschlauch/rasenmäher | tuyau d'arrosage/tondeuse |
  manguera/cortacésped | шланг/газонокосилка
plants: plant/flower seeds | pflanze/blumensamen | plante/graines de fleurs | planta/semillas |
  растение/семена
tools: drill/screwdriver | bohrmaschine/schraubendreher | perceuse/tournevis |
  taladro/destornillador | дрель/отвёртка
bicycles: bicycle/bike helmet | fahrrad/fahrradhelm | vélo/casque vélo | bicicleta/casco |
  велосипед/шлем
camping: tent/sleeping bag | zelt/schlafsack | tente/sac de couchage |
  tienda de campaña/saco de dormir | палатка/спальный мешок
fitness: dumbbell/yoga mat | hantel/yogamatte | haltère/tapis de yoga | mancuerna/esterilla |
  гантели/коврик для йоги
football: football/goalkeeper gloves | fußball/torwarthandschuhe |
  ballon de foot/gants de gardien | balón de fútbol/guantes de portero |
  футбольный мяч/вратарские перчатки
books: novel/cookbook | roman/kochbuch | roman/livre de cuisine | novela/libro de cocina |
  роман/кулинарная книга
toys: toy/building blocks | spielzeug/bausteine | jouet/cubes | juguete/bloques | игрушка/кубики
baby: baby bottle/pram | babyflasche/kinderwagen | biberon/poussette | biberón/cochecito |
  бутылочка/коляска
skin-care: face cream/sun cream | gesichtscreme/sonnencreme | crème visage/crème solaire |
  crema facial/crema solar | крем для лица/солнцезащитный крем
perfume: perfume/fragrance | parfüm/duft | parfum/eau de toilette | perfume/colonia | духи/аромат
pets: dog food/cat litter | hundefutter/katzenstreu | croquettes/litière |
  comida para perros/arena para gatos | корм для собак/наполнитель
"""


def _parse(rows: str) -> dict[str, dict[str, list[str]]]:
    words = {}
    for row in rows.replace("\n  ", " ").strip().splitlines():
        category, by_language = row.split(":")
        words[category] = {
            language: [word.strip() for word in text.split("/")]
            for language, text in zip(LANGUAGES, by_language.split("|"), strict=True)
        }
    return words


WORDS = _parse(_ROWS)
"""Words by category and language."""
