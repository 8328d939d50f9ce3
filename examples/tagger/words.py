"""The words that values.py puts together: lists from the folder beside it, and short ones."""

from __future__ import annotations

from pathlib import Path

LISTS = Path(__file__).with_name("lists")
SHARE_INVENTED = 0.25  # of names and towns: a model that has seen only known ones learns a list
VOWELS, CONSONANTS = "aeiouaeioueaoyéöåí", "bdfgjklmnprstvzhckrlnstmchšthjørñ"
FIRST_ENDS = "a,o,e,us,in,ine,ette,ita,ina,ek,ka,io,el,ane,an,en,is,ya,iko,to,mir,slav,wen,la,ri".split(",")
LAST_ENDS = (
    "son,sen,ssen,sson,sdóttir,ski,ska,wicz,ic,ić,ov,ova,ev,eva,enko,uk,yan,idis,opoulos,akis,ez,es,inho,eira,ini,etti,ucci,"
    "elli,ano,mann,meier,bauer,berg,stein,feld,hofer,lund,gren,qvist,dal,stad,nen,la,vaara,ton,ley,worth,man,field,well,wood,"
    "ard,eau,ault,ier,oux,stra,sma,ink,aert,ema,oğlu,zadeh,pour,ullah,awa,moto,mura,nathan,appa,unga,wala,eze,ayo,ndo,ai"
).split(",")
TOWN_ENDS = (
    "ton,ville,burgh,bury,ford,ham,wick,by,thorpe,stead,mouth,port,field,dale,wood,burg,heim,hausen,ingen,dorf,bach,feld,kirchen,"
    "stadt,au,itz,ow,ów,ice,ec,ovo,grad,sk,pol,nice,vik,vík,borg,holm,köping,sjö,nes,fjord,fjörður,eyri,järvi,lahti,niemi,saari,"
    "mäki,ac,igny,ières,court,euil,ano,ello,ate,ona,asco,eira,inho,elos,illa,edo,endam,wijk,hoven,gem,zele,beek,háza,falva,vár,"
    "pur,abad,nagar,kota,oka,saki,yama,ang,ong,uk,ira,aru,ene,ata"
).split(",")
PARTICLES = (
    "van,van der,van den,van de,de,de la,del,della,di,da,dos,do,von,von der,zu,le,la,al-,el-,ben,bin,ibn,O',Mc,Mac,D',St. "
).split(",")
TITLES = (
    "Mr.,Mrs.,Ms.,Dr.,Mr,Mrs,Ms,Miss,Dr,Prof.,Professor,Sir,Lady,Rev.,Fr.,Herr,Frau,Mme,M.,Sr.,Sra.,Sig.,Capt.,Sgt."
).split(",")
SUFFIXES = "Jr.,Sr.,II,III,MD,M.D.,PhD,DDS,DVM,RN,Esq.,CPA,MBA".split(",")
MONTHS = "January,February,March,April,May,June,July,August,September,October,November,December".split(",")
DAYS = "Monday,Tuesday,Wednesday,Thursday,Friday,Saturday,Sunday".split(",")
NATIONALITIES = (
    "American,British,Irish,Canadian,Australian,German,Austrian,Swiss,French,Belgian,Dutch,Spanish,Portuguese,Italian,Greek,Danish,"
    "Swedish,Norwegian,Finnish,Polish,Czech,Hungarian,Romanian,Russian,Ukrainian,Turkish,Egyptian,Moroccan,Nigerian,Kenyan,Indian,"
    "Pakistani,Chinese,Japanese,Korean,Vietnamese,Thai,Filipino,Mexican,Colombian,Peruvian,Chilean,Brazilian,Cuban"
).split(",")
STATES = (
    "AL AK AZ CA CO CT DE FL GA IL IN KS KY LA MA MD MI MN MO NC NE NJ NM NV NY OH OK OR PA SC TN TX UT VA VT WA WI"
).split()
KINDS = (
    "Street St St. Avenue Ave Ave. Road Rd Lane Drive Dr Court Ct Place Square Terrace Way Boulevard Blvd "
    "Circle Close Crescent Row"
).split()
PREFIXED = (
    "rue,avenue,boulevard,place,Rue,Via,via,Viale,Piazza,Corso,Calle,C/,Avenida,Av.,Plaza,Rua,R,Travessa,ul.,ulica,al.,Trg"
).split(",")
JOINED = (
    "straße,strasse,str.,weg,gasse,platz,allee,straat,laan,plein,steenweg,gracht,gatan,vägen,gata,vej,gade,plads,veien,vegur,katu,tie"
).split(",")
AFTER = "utca,tér,út,tn,iela,gatvė,Caddesi,Sokak,ulica,Straße,Strasse,Str.,Street,street,Marg,Nagar,Road".split(",")
BEFORE_TOWN = "San,Santa,Saint,St.,Bad,New,Ober,El,La,Las,Mount,Port,Nova,Sankt".split(",")
QUIET_KINDS = "Gardens,Mews,Hill,Park Drive,View,Meadows,Rise,Grove,Walk,Parkway".split(",")
UNITS = "Apt.,Apt,Suite,Ste,Unit,Flat,#,apt.,Floor,Apto,Room,Top,Wohnung,Piso,kv.,m.".split(",")
ARMY = "APO AP,APO AE,APO AA,FPO AP,FPO AE,FPO AA,DPO AP,DPO AE".split(",")
PROVINCES = "ON QC BC AB MB NS NB MI RM TO NA BO FI VE PA CT GE SP RJ MG PR RS BA".split()
COMPASS = "N S E W NE NW SE SW North South East West".split()
HUNGARIAN = "utca,u.,út,útja,tér,körút,köz,sor".split(",")
NONE = "nan,NaN,N/A,n/a,null,None,-,?,unknown".split(",")
BOXES = "P.O. Box,PO Box,P.O. box,POB,Postfach,Postbus,Casella Postale,Apartado,BP,Locked Bag".split(",")
BRAND_ENDS = "ly,ify,ia,ex,tech,soft,corp,pharm,ica,ora,ix,ano,io,zon,gle,flix,tel,bank,pay,ster,wise,hub".split(",")
WORK_ENDS = "ander,ica,opia,tron,oid,verse,land,ara,ion,ium,eon,azo,ora,dor,mania,hood,topia,ulon,onia".split(",")
DRUG_ENDS = (
    "mab,nib,tinib,pril,sartan,olol,azole,cillin,mycin,statin,tide,gliptin,vir,triptan,pam,zine,oxetine,afil,dronate,parin,ra,va,ia,ix,"
    "exa,ica,yx,opra,ium,axo,uvia,enta,ril,zyme,cort,tol,iva,ique,essa,ara,eva,ista"
).split(",")
CONDITION_ENDS = (
    "itis,osis,oma,emia,uria,algia,pathy,plegia,rrhea,penia,megaly,dystrophy,ectomy,oscopy,oplasty,ism".split(",")
)
EPONYMS = (
    "disease,syndrome,sign,test,fracture,score,criteria,reflex,tumor,palsy,anomaly,procedure,operation,maneuver,catheter,phenomenon,"
    "fever,ulcer,nodes,triad,contracture,position"
).split(",")
BUSINESSES = (
    "Bakery,Garage,Diner,Law,Dental,Pharmacy,Motors,Brothers,Consulting,Plumbing,Realty,Insurance,Farms,Cleaning Services,"
    "Books,Garden Centre,Electronics,Logistics,Maintenance,Café,Studios,Records,Software"
).split(",")
# Also those of texts whose encoding was taken for another.
DASHES = ["–", "—", "-", "--", *("–".encode().decode(page) for page in ("cp1252", "cp1250", "cp1255", "cp1253"))]
DASHES += ["—".encode().decode("cp1255", "replace"), "…"]
INSTITUTIONS = "General Hospital,Bank,Council,Police,United,Times,Clinic,University,School".split(",")


def read_list(name: str) -> list[str]:
    """The entries of a list: divided by commas, or by blanks in lists of single words."""
    lines = [line for line in (LISTS / f"{name}.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    if any("," in line for line in lines):
        return [entry.strip() for line in lines for entry in line.split(",") if entry.strip()]
    return [entry for line in lines for entry in line.split()]
